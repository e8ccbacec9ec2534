"""Runs and models as people read them: aligned text, plain HTML, and MIME bundles that the labextension draws live."""
