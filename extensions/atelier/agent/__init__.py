"""The agent: process 1 of an attempt. It fetches the code, runs it, ships what it tells and leaves, and stamps the end.

It is started by a backend with one argument, the attempt's folder, and talks to nobody but the run service. It imports
neither pydantic nor httpx: it shares a machine with the work, and it must be up before the user has noticed.
"""
