"""Words, segments and transcripts: values and the rules that join and print them."""
