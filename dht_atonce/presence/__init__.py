"""Who is there: presence from links, records and goodbyes together."""
