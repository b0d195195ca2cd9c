"""Build the page and launch it; also the entry point on Hugging Face Spaces."""

import argparse

from salq.ui.page import launch

if __name__ == "__main__":
    argparse.ArgumentParser(description="Serve the page.", epilog="GRADIO_SERVER_PORT moves it; README says what else can be set.").parse_args()
    launch()
