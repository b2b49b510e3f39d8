"""One file per question; README.md has the questions, the commands and the last figures."""
