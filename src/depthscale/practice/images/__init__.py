"""Image data sets as published: where they are, what the files hold, and that they are whole."""
