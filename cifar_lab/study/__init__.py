"""What varies in a sweep, what came of it, and what may be concluded; reads folders, never imports torch."""
