# Two commands for a fresh Debian 12. Everything else is in tools/dev.
.PHONY: demo test

# A plant of six Debian machines in five zones: a tour that ends by itself; at a terminal the plant stays up behind it, until Ctrl-C.
demo:
	@tools/demo

# Everything that has to hold, from unit tests to Debian guests; 50 minutes from a clean clone on 2 cores, half an hour with a warm ccache.
test:
	@tools/test
