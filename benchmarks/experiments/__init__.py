"""One experiment a file: ``main(arguments)`` parses its command line, measures and prints."""
