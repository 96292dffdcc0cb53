"""MindSpore 2.10: loading a net, reaching into it without changing it, and running it compiled.

The only package that imports MindSpore, and always through `runtime`, which sets up the process first.
"""
