"""Where the floor is: capture and send with nothing between them."""
