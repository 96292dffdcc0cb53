"""The web console of xai-sidecar: what a model sees, and how far its explanations can be trusted, in a browser.

A client like any other: it reads and asks through `xai_client` alone. Pages are made in Python with NiceGUI; what
draws maps in the browser is `components/saliency`. Start it with `xai-console`.
"""
