-- The value is checked against an allow-list because paths are normalised before filters run: ".." in it would
-- otherwise be routed by one namespace's table and served by another's.
function envoy_on_request(r)
  local h = r:headers()
  h:remove("x-isthmus-bad-target")
  local t = h:get("x-isthmus-target")
  if t == nil then return end
  h:remove("x-isthmus-target")
  if #t > 200 or not string.find(t, "^/[a-z0-9][a-z0-9%-]*/[a-z]+/[a-z0-9][a-z0-9%-]*$") then
    h:replace("x-isthmus-bad-target", "true")
    r:respond({[":status"] = "400"}, "bad x-isthmus-target")
    return
  end
  h:replace(":path", t .. h:get(":path"))
  r:clearRouteCache()
end
