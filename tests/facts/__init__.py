"""What the real gearmand does, one test for each fact that a decision of the relay rests on."""
