"""What the module EMIMPretrain consists of, besides its panel's window frame in EMIMPretrain.py."""
