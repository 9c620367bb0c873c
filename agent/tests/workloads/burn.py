"""Burns one CPU in the interpreter's loop."""


def burn():
    total = 0
    for turn in range(1000000):
        total += turn * 7
    return total


while True:
    burn()
