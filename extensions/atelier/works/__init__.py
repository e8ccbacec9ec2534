"""What is to be run (a notebook, script, module or function): found, read and checked without running any of it."""
