"""What tests of several rooms share: real servers, and processes that die when they are told to."""
