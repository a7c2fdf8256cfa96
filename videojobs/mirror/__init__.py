"""Download an output URL, verify the file and store it. Independent of jobs."""
