"""The program of training processes and of the one they are forked from; see `trainer.workers.forkserver`.

Their arguments are `serve SOCKET NICENESS loaded|fresh`, and where what is forked may not train, `train SOCKET`.
Nothing is imported at the top: the processes that decode images for a training process import its program again (what
multiprocessing does with every new interpreter), and would wait for torch.
"""

if __name__ == "__main__":
    import socket
    import sys

    from trainer.process import forks

    def train(channel: socket.socket) -> int:
        """Run the attempt that is ordered through a socket; imported late where a fresh interpreter does so."""
        from trainer.process import run

        return run.main(channel)

    sys.exit(forks.main(sys.argv[1:], train))
