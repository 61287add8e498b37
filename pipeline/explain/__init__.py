"""`vitpipe explain`: what a model looks at, as pictures and figures, of some images or of the model itself."""
