"""The web page: layout (`page`, one file per tab), behaviour (`actions_*`), words (`words`), and nothing that computes.

Only this room imports gradio. Importing it must not import torch, transformers or datasets: the page's first paint waits for it.
"""
