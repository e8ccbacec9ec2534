"""The hub's side: configuration, who may do what, how user servers start, and the pages before JupyterLab."""
