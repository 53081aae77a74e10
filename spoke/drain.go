package spoke

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"syscall"
	"time"
)

const (
	adminTimeout = time.Second
	adminRetry   = 250 * time.Millisecond
)

// drain is how a router stops. Its /healthz on the east-west listener fails from the moment at which it is told to, so that
// other routers go elsewhere, and Envoy asks its clients to connect anew with each answer; meanwhile both serve on. The
// readiness stays: a pod that ends is taken out of its Service anyway, and where it is the only one it is to serve as long as
// it can.
type drain struct {
	envoy envoyAdmin
	log   *slog.Logger
	lasts time.Duration
}

// run returns when the router may end: told by asked, and drained; or at the end of serving.
func (d drain) run(asked, serving context.Context) {
	// A relay that was restarted alone finds an Envoy that still announces its predecessor's stop.
	if err := d.envoy.eventually(asked, "healthcheck/ok"); err != nil && asked.Err() == nil {
		d.log.Info("Envoy could not be told that the router serves", "error", err)
	}
	select {
	case <-serving.Done():
		return
	case <-asked.Done():
	}
	d.log.Info("The router stops; other routers are told", "drain", d.lasts)
	if err := d.envoy.post(context.WithoutCancel(serving), "healthcheck/fail"); err != nil {
		d.log.Info("Envoy could not be told of the stop", "error", err)
	}
	select {
	case <-serving.Done():
	case <-time.After(d.lasts):
	}
}

// envoyAdmin is the host:port of Envoy's admin interface; empty: there is none to tell.
type envoyAdmin string

func (a envoyAdmin) post(ctx context.Context, path string) error {
	if a == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+string(a)+"/"+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/%s answered %s", path, resp.Status)
	}
	return nil
}

// eventually posts until Envoy has answered. Where nobody listens there is no Envoy yet, and one that starts announces nothing.
func (a envoyAdmin) eventually(ctx context.Context, path string) error {
	for {
		err := a.post(ctx, path)
		if err == nil || errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(adminRetry):
		}
	}
}
