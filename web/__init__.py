"""The web page of app.py: components, routes, visitors' data and texts. Needs Gradio."""

import os

# Gradio reads both when it is imported: the page must not call other machines.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
