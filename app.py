"""Build the page and launch it; also the entry point on Hugging Face Spaces."""

from salq.ui.page import launch

if __name__ == "__main__":
    launch()
