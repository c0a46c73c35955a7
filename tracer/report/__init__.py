"""What people and programs see of a trace; reads only finished traces."""
