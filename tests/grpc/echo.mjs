// The service: messages are bytes, so that nothing needs to be generated.

const bytes = (message) => message;

function method(name, requestStream = false, responseStream = false) {
  return {
    path: `/echo.Echo/${name}`,
    requestStream,
    responseStream,
    requestSerialize: bytes,
    requestDeserialize: bytes,
    responseSerialize: bytes,
    responseDeserialize: bytes,
  };
}

export const echo = {
  Say: method('Say'),
  List: method('List', false, true),
  Talk: method('Talk', true, true),
  Fail: method('Fail'),
  Wait: method('Wait'),
};
