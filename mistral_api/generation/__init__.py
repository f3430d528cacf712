"""One generation request from its decoded body to its recorded outcome."""
