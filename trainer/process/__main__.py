"""The program of the fork server and of training processes; see `trainer.workers.forkserver`.

The fork server's arguments are `serve SOCKET NICENESS loaded|fresh`. A training process that starts as a fresh
interpreter has the arguments `train SOCKET`. Nothing is imported at the top: multiprocessing imports this module again
in every process that decodes images for a training process, and those processes would load torch for nothing.
"""

if __name__ == "__main__":
    import socket
    import sys

    from trainer.process import forks

    def train(channel: socket.socket) -> int:
        """Run the attempt whose order comes through the socket; torch is imported only here if not loaded before."""
        from trainer.process import run

        return run.main(channel)

    sys.exit(forks.main(sys.argv[1:], train))
