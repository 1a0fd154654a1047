"""Networks of finite width: what one random draw does, and how far draws differ from each other."""
