"""Downloads and archives: resumed, verified, unpacked safely."""
