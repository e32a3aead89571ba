"""How the models are trained and measured."""
