"""What a run will take, told before it starts: counted, not tried, but for seconds of passes."""
