"""One reader per kind of file. Each looks at little, says what the rest would cost, and reads it only when asked."""
