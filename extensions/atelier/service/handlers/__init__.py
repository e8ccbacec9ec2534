"""HTTP resources of the run service, one module each; they translate and never decide."""
