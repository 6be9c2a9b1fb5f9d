"""Arrow A, and the room that travels: the flat files a checkpoint carries to the Hub for ``trust_remote_code``.

They import torch, transformers and their flat siblings only, so that a machine without this package can run them.
"""
