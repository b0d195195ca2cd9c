"""Where a LLaMA comes from, its blocks and linears as data, capture of inputs. The only room that imports transformers."""
