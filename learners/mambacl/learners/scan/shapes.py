def check_scan(*a): pass
def check_read(*a): pass
