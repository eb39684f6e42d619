"""Shows what a gate found: as text, annotations of GitHub, JUnit XML, and a page of HTML."""
