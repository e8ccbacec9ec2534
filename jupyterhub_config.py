"""JupyterHub's configuration; all of it is in ``atelier.hub.configure``, what may be chosen is in ``atelier.yaml``."""

from atelier.home import atelier_home
from atelier.hub.configure import configure
from atelier.settings import load_settings

home = atelier_home()
configure(get_config(), load_settings(home / "atelier.yaml"), home)  # noqa: F821
