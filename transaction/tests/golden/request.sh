# Masked when it was captured: request.header.Authorization
# Masked when it was captured: request.query.token
curl --request 'POST' \
  --path-as-is --globoff \
  --http1.1 \
  --header 'User-Agent: curl/8.14.1' \
  --header 'content-type: application/json' \
  --header 'Authorization: Bearer [redacted]' \
  --header 'Cookie: sid=[redacted]; theme=[redacted]' \
  --header 'X-Request-Id: r-1' \
  --header 'X-Note: it'\''s' \
  --header 'x-note: two' \
  --header 'Accept:' \
  --header 'Expect:' \
  --data-raw '{"item":"o'\''clock","password":"[redacted]"}' \
  --url 'https://api.example.com:8443/v1/orders?page=2&token=[redacted]&q=a+b%26c'
