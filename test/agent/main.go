package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is set at link time.
var version = "devel"

const drainTime = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv, os.Stderr, nil); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

// run serves until the context ends. listening, when given, is told the address.
func run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer, listening func(net.Addr)) error {
	o, err := parseOptions(args, getenv, stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil)).With("kind", o.kind, "name", o.name)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", o.address)
	if err != nil {
		return fmt.Errorf("listen: %w (set --address, or POD_IP and PORT)", err)
	}
	log.Info("listening", "address", l.Addr().String(), "version", version)
	if listening != nil {
		listening(l.Addr())
	}
	return serve(ctx, newServer(o, log), l)
}

// serve ends gracefully with the context: open streams are told to end, requests in flight have drainTime.
func serve(ctx context.Context, s *server, l net.Listener) error {
	done := make(chan error, 1)
	go func() { done <- s.http.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	close(s.stopping)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	err := s.http.Shutdown(drain)
	s.grpc.Stop()
	if ended := <-done; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}
