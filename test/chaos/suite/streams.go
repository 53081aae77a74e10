package suite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// streams are long answers that stay open: server-sent events, WebSockets and gRPC.
type streams struct {
	mu     sync.Mutex
	resets map[string]int    // by the cluster that served the stream
	why    map[string]string // the last reason, by cluster
	opened int
	wg     sync.WaitGroup
	cancel context.CancelFunc
	ctx    context.Context
}

const openTimeout = 10 * time.Second

// openStreams opens n streams of each kind to each URL and returns when all of them have carried something.
func openStreams(ctx context.Context, n int, urls ...string) (*streams, error) {
	s := &streams{resets: map[string]int{}, why: map[string]string{}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	first := make(chan error, 3*n*len(urls))
	for _, u := range urls {
		for range n {
			s.wg.Go(func() { s.sse(u+"/sse?interval=100ms", first) })
			s.wg.Go(func() { s.webSocket("ws"+strings.TrimPrefix(u, "http")+"/ws", first) })
			s.wg.Go(func() { s.grpc(u, first) })
		}
	}
	timer := time.NewTimer(openTimeout)
	defer timer.Stop()
	for range cap(first) {
		var err error
		select {
		case err = <-first:
		case <-timer.C:
			err = fmt.Errorf("a stream does not open within %s", openTimeout)
		}
		if err != nil {
			s.cancel()
			s.wg.Wait()
			return nil, err
		}
		s.opened++
	}
	return s, nil
}

func (s *streams) reset(by string, err error) {
	if s.ctx.Err() != nil {
		return // we ended it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resets[by]++
	s.why[by] = fmt.Sprint(err)
}

func (s *streams) sse(at string, first chan<- error) {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, at, nil)
	if err != nil {
		first <- err
		return
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		err = fmt.Errorf("%s: %s", at, resp.Status)
	}
	if err != nil {
		first <- err
		return
	}
	defer resp.Body.Close()
	by := resp.Header.Get("x-isthmus-served-by")
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() {
		first <- fmt.Errorf("%s: no event: %w", at, lines.Err())
		return
	}
	first <- nil
	for lines.Scan() {
	}
	s.reset(by, lines.Err())
}

func (s *streams) webSocket(at string, first chan<- error) {
	conn, resp, err := websocket.Dial(s.ctx, at, nil) //nolint:bodyclose // the library closes it
	if err != nil {
		first <- err
		return
	}
	defer func() { _ = conn.CloseNow() }()
	by := resp.Header.Get("x-isthmus-served-by")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		err := conn.Write(s.ctx, websocket.MessageText, []byte("ping"))
		if err == nil {
			_, _, err = conn.Read(s.ctx)
		}
		if n == 0 {
			first <- err
		}
		if err != nil {
			if n > 0 {
				s.reset(by, err)
			}
			return
		}
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// grpc watches the agent's health, which does not change: the stream says it once and stays open.
func (s *streams) grpc(at string, first chan<- error) {
	u, err := url.Parse(at)
	if err != nil {
		first <- err
		return
	}
	conn, err := grpc.NewClient("passthrough:///"+u.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		first <- err
		return
	}
	defer func() { _ = conn.Close() }()
	stream, err := conn.NewStream(s.ctx, &grpc.StreamDesc{ServerStreams: true}, u.Path+grpc_health_v1.Health_Watch_FullMethodName)
	if err == nil {
		err = errors.Join(stream.SendMsg(&grpc_health_v1.HealthCheckRequest{}), stream.CloseSend(), stream.RecvMsg(&grpc_health_v1.HealthCheckResponse{}))
	}
	first <- err
	if err != nil {
		return
	}
	by := ""
	if header, err := stream.Header(); err == nil {
		by = strings.Join(header.Get("x-isthmus-served-by"), "")
	}
	for err == nil {
		err = stream.RecvMsg(&grpc_health_v1.HealthCheckResponse{})
	}
	s.reset(by, err)
}

// stop ends the streams and says how many were reset before, by the cluster that served them.
func (s *streams) stop() (map[string]int, map[string]string) {
	s.cancel()
	s.wg.Wait()
	return s.resets, s.why
}
