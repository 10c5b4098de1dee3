"""Reading what lies in an image: its layers as streams, and the ELF files in them. Nothing is unpacked or run."""
