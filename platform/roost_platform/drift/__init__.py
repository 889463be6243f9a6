"""Whether what a model is asked and answers still looks like its reference: sketches and the tests between them."""
