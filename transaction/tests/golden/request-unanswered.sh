# The headers were not kept (level summary).
curl --get \
  --path-as-is --globoff \
  --http1.0 \
  --header 'User-Agent:' \
  --header 'Accept:' \
  --url 'http://192.0.2.9/'
