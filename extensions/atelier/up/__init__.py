"""``atelier up``: proxy, run service and hub of one computer as one program in the foreground."""
