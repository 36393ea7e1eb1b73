"""The Dockerfile, really built and run without an image registry: `python3 -m tests.image.check`.

`build` makes a base with debootstrap and the image with buildah, `jail` runs it, `inside` is the way in,
`probe` is what asks questions in there, and `check` puts them together. Standard library only, since it runs
with the system's Python; Linux, and root for the name spaces and mounts.
"""
