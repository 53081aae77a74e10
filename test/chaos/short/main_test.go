package short

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func mainContext() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}
