"""Published tables, trained again under their own protocol and compared with what was published."""
