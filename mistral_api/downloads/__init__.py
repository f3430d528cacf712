"""Large files from the network into a folder: continued where they broke off, and named once they are whole."""
