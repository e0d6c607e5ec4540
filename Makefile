# Two commands for a fresh Debian 12. Everything else is in tools/dev.
.PHONY: demo test

# Boots Debian's kernel in a Bulkhead VM: to a shell at a terminal, else through a short tour that ends by itself.
demo:
	@tools/demo

# Everything that has to hold, from unit tests to Debian guests; 50 minutes from a clean clone on 2 cores, half an hour with a warm ccache.
test:
	@tools/test
